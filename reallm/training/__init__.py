"""One SpeechBrain Brain for all systems, checkpoints that survive a kill, schedules."""
