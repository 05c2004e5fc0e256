"""The session service: what was said, in gapless order, and each session's working memory."""
