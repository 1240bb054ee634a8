"""Systems of five earlier studies, reproduced and beaten."""
