"""The parts of `manage_scripts/demo.py`: embedded servers, the mailbox, processes, samples, display."""
