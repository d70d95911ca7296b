"""tap-mysql: MySQL and MariaDB tables and views as Singer streams."""
