"""Steps: each makes one kind of thing from inputs that it is handed, and knows no recipe and no other step."""
