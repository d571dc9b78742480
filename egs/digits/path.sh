# Sourced by run.sh: the toolkit's environment, set up when it is not there yet.
. "$here/../../tools/activate.sh"
export OMP_NUM_THREADS=$nj MKL_NUM_THREADS=$nj
