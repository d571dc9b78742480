# The same recipe, small: four hours of speech, spoken by espeak-ng, on two CPU cores.
conf=conf/small
synthetic=4.0
train_sets=100
vocab=300
delay=2
teacher_epochs=4
epochs=4
