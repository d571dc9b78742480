# A small budget: the whole recipe in some minutes, to an error rate that a broken stage could not reach.
train_strings=3000
data_epochs=1
test_strings=150
dev_strings=50
teacher_epochs=3
epochs=3
