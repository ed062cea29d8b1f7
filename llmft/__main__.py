"""`python -m llmft` is the `llmft` command."""

from llmft.cli import main


if __name__ == "__main__":
    main()
