"""Times in the consoles: to the second, as logs have them."""

DATETIME_FORMAT = "Y-m-d H:i:s"
