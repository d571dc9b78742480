# For speakers that were never heard: other voices made of those that were. Used with --held-out-speaker NAME.
speeds="0.88 0.94 1 1.06 1.13"
vocal_tract=0.15
