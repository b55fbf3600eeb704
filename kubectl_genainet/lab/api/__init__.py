"""The lab's API objects and the controllers that keep them."""
