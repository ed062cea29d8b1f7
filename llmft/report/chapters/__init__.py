"""What each chapter shows: a module a chapter, a function a figure, table or paragraph."""
