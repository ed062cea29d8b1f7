"""What the colours of the book's figures become on a dark page; the others stay.

Two rooms need it: `report` writes it into each figure, `book` into the page of one that answers.
"""

COLOURS = {
    "#ffffff": "#15191e",
    "#1f2328": "#e6edf3",
    "#57606a": "#a8b1bb",
    "#8c959f": "#7d8590",
    "#e4e7eb": "#2b323a",
    "#0072B2": "#4aa3e6",
    "#D55E00": "#f0883e",
    "#009E73": "#2fbf91",
    "#CC79A7": "#e39bc5",
    "#56B4E9": "#a5dcff",
    "#000000": "#ffffff",
    "#334155": "#cbd5e1",
    "#9467bd": "#b794e0",
    "#7f7f00": "#c9c94d",
    "#8c2d04": "#e8824f",
    "#005f5f": "#3fb5b5",
    "#7a0177": "#d47fd1",
    "#4d4d4d": "#b3b3b3",
    "#8c564b": "#c9968b",
}
