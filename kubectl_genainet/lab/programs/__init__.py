"""The lab's processes and the programs they run."""
