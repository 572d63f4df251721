"""Examples from files: texts with labels or tags, in the formats that people have."""
