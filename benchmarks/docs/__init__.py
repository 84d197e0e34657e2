"""What the pages of docs/ show of the code and of the stored figures, made by programs: tables of settings, the picture."""
