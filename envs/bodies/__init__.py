"""What several families share: the arm, objects, terrain, and what locomotion needs."""
