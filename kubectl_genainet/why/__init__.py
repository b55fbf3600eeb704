"""Why a packet died: causes, each with its evidence."""
