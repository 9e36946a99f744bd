"""What a study is asked for."""
