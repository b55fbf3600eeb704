"""From paths, drops and DNS exchanges of one watch to ranked causes, with the symptoms folded under them."""
