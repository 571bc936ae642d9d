"""What every method must do, whatever it learns.

Each check takes a `Case` and raises `AssertionError` for what is wrong; it returns nothing, or, in
words, why it says nothing about this method.
"""
