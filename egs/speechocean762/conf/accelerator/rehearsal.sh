# accelerator.sh begin on two CPU cores, in minutes: a few minutes of synthetic speech, some updates of 20M parameters. It learns nothing.
size=20m
device=cpu
nj=2
minutes=5
reserve=4
hours=0.1
easy_hours=0.02
vocab=80
dev_speakers=2
limit=3
