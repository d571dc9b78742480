# Sourced by run.sh: the toolkit's environment, set up when it is not there yet.
. "$here/../../tools/activate.sh"
export OMP_NUM_THREADS=$nj MKL_NUM_THREADS=$nj
# Threads that wait give their core away: beside two busy processes, spinning ones made the encoder three times slower.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
