"""What the +MODIFIERs of a family's name do."""
