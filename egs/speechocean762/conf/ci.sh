# The smallest that goes through every stage: a minute of synthetic speech. It learns nothing.
systems="ctc speech_reallm"
seeds="1"
hours=0.02
voices=6
easy_hours=0.02
vocab=80
teacher_easy_epochs=1
teacher_epochs=1
teacher_finetune_epochs=1
pretrain_epochs=1
finetune_epochs=1
chunks="4 8"
test_utterances=4
dev_utterances=4
limit=3
