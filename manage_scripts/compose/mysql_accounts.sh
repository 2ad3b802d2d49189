#!/bin/bash
# Makes the databases and their accounts. The MySQL image runs this once, on an empty data volume; to run it again, remove
# the volume, and the data with it. Each service has two accounts that see its own database only: one that reads and
# writes rows, for its processes, and one that also changes the schema, for its migrate service.
set -eo pipefail

sql() {
    MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql --protocol=socket --user=root "$@"
}

# create_database NAME
create_database() {
    sql --execute="CREATE DATABASE $1 CHARACTER SET utf8mb4"
}

# create_account NAME PASSWORD_VARIABLE DATABASE_PATTERN PRIVILEGES
create_account() {
    local name=$1 variable=$2 pattern=$3 privileges=$4
    local password=${!variable}
    if [[ ! $password =~ ^[A-Za-z0-9_-]+$ ]]; then
        echo "$variable is empty or holds more than letters, digits, - and _ (it becomes part of a URL): set it in .env," \
            "for example to the output of 'openssl rand -hex 32', and begin anew with: docker compose down --volumes" >&2
        exit 1
    fi
    # By standard input, so that no password stands in the list of processes.
    sql <<SQL
CREATE USER '$name'@'%' IDENTIFIED BY '$password';
GRANT $privileges ON \`$pattern\`.* TO '$name'@'%';
SQL
}

rows="SELECT, INSERT, UPDATE, DELETE"
schema="$rows, CREATE, ALTER, DROP, INDEX, REFERENCES"

create_database notification_db
create_database email_db
# In a GRANT a bare underscore stands for any character, and would let the account into more databases than one.
create_account notification NOTIFICATION_DB_PASSWORD 'notification\_db' "$rows"
create_account notification_migrate NOTIFICATION_MIGRATE_DB_PASSWORD 'notification\_db' "$schema"
create_account email EMAIL_DB_PASSWORD 'email\_db' "$rows"
create_account email_migrate EMAIL_MIGRATE_DB_PASSWORD 'email\_db' "$schema"
