"""Policy answers and matrices."""
