"""What a setting may be: policies, proposals, exemptions, and what holds instead for a while."""
