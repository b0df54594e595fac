"""Constants of the competition: name on Kaggle, files and checksums, classes, row counts and the 2013 leaderboard.

Kaggle, "Challenges in Representation Learning: Facial Expression Recognition Challenge" (FER2013), 12 April to
24 May 2013; Goodfellow et al., "Challenges in Representation Learning: A report on three machine learning
contests", 2013 (arXiv 1307.0414).
"""

SLUG = "challenges-in-representation-learning-facial-expression-recognition-challenge"

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
SIDE = 48  # width and height of a picture in pixels
SPLITS = ("Training", "PublicTest", "PrivateTest")
TRAINING, PUBLIC, PRIVATE = range(3)  # indices into SPLITS, the values of Faces.usage

SPLIT_ROWS = (28709, 3589, 3589)
CLASS_COUNTS = (  # published number of rows per split and class
    (3995, 436, 4097, 7215, 4830, 3171, 4965),
    (467, 56, 496, 895, 653, 415, 607),
    (491, 55, 528, 879, 594, 416, 626),
)

# Checksums of the competition's files on Kaggle: (algorithm, hexadecimal digest).
CHECKSUMS = {
    "fer2013.tar.gz": ("sha1", "b0e7632c70853f4d3b6a2a73031dd8c71d8d536d"),
    "fer2013.csv": ("md5", "f8428a1edbd21e88f42c73edd2a14f95"),
    "icml_face_data.csv": ("md5", "b114b9e04e6949e5fe8b6a98b3892b1d"),
    "train.csv": ("md5", "3f0dfb3d3fd99c811a1299cb947e3131"),
    "test.csv": ("md5", "b02c2298636a634e8c2faabbf3ea9a23"),
}

# The ten best teams on the final (PrivateTest) leaderboard: name, correct predictions of 3,589. Ranks 11 to 56 are no
# longer published.
TEAMS_2013 = 56
BOARD_2013 = (
    ("RBM", 2554),
    ("Unsupervised", 2486),
    ("Maxim Milakov", 2470),
    ("Radu+Marius+Cristi", 2422),
    ("Lor.Voldy", 2342),
    ("ryank", 2336),
    ("Eric Cartman", 2314),
    ("Xavier Bouthillier", 2305),
    ("Alejandro Dubrovsky", 2265),
    ("sayit", 2232),
)
