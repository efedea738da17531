"""What happens in calls, for everybody who wants to hear of it."""
