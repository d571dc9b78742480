# The same recipe, small: an hour of speech, spoken by espeak-ng, on two CPU cores.
conf=conf/small
synthetic=1.0
train_sets=100
vocab=300
delay=2
teacher_epochs=12
epochs=12
