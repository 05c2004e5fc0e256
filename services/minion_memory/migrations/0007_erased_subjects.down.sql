-- What was said before an erasure may be drawn again, where its session is still kept.
DROP TABLE memory.erased_subjects;
