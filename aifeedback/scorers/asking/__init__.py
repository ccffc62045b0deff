"""Judges that are asked: vision-language models and servers, what is sent to them and how answers are read."""
