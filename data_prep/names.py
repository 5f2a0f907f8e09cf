"""Names of the data sets, as they stand in `data_source`: verl groups metrics by them, graders dispatch on them.

A data set that verl itself grades keeps verl's name.
"""

GSM8K = "openai/gsm8k"
MATH = "DigitalLearningGmbH/MATH-lighteval"
MATH500 = "HuggingFaceH4/MATH-500"
AIME24 = "HuggingFaceH4/aime_2024"
POINT24 = "spo/point24"
ARITHMETIC = "spo/arithmetic"
