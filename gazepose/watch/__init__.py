"""Any video, and nothing else: faces are found, followed and scored, and looks at the camera are written as tables.

The model files come from `python -m gazepose models`. command.py is the way through; everything between its steps is
one table of faces (table.py).
"""
