"""The protocol `live` of the fidelity bench: does a launched candidate's first tenth of a block rank it as a full backfill would?

config       what is compared
plan         the trainings, and where their results are kept
starts       what a candidate may start from
trainings    one training: start, live, the losses of its rows
measures     how well the losses of few rows predict the full log's order, with intervals
result       what live.json and live_cost.json hold
assemble     the results of the trainings, measured
bench        all of it
words        the verdict, and what it rests on, in sentences
pictures     its plots
page         its sections of the report
"""
