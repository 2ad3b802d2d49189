# Every check that CI makes is a target here, and .ci/run calls nothing else.

PYTHON3 ?= python3
PROJECTS := notification_project email_project
BIN := .venv/bin
COMPOSE := $(shell command -v docker-compose || echo docker compose)

.DEFAULT_GOAL := help
.PHONY: help setup lint format types check compose guarantees test test-fast prove mutations demo services lock

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv with everything that development needs
	@$(PYTHON3) manage_scripts/bootstrap.py dev > /dev/null

lint: setup ## Linters: Python's and the Dockerfiles'
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/hadolint $(PROJECTS:%=%/Dockerfile)

format: setup ## Let ruff mend and format what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: setup ## mypy, strict, over the whole tree
	$(BIN)/mypy .

check: setup ## Django's deployment checks and missing migrations, in both projects
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	export SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(48))') \
	  ALLOWED_HOSTS=notifyx.example CSRF_TRUSTED_ORIGINS=https://notifyx.example TLS_ONLY=on \
	  REDIS_URL=redis://127.0.0.1:6379/0 KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 \
	  EMAIL_URL=smtp+tls://127.0.0.1:587 DEFAULT_FROM_EMAIL=notifyx@notifyx.example; \
	for project in $(PROJECTS); do \
	  export DATABASE_URL="sqlite:///$$folder/$$project.sqlite3"; \
	  echo "$$project: check --deploy"; \
	  $(BIN)/python $$project/manage.py check --deploy --fail-level WARNING; \
	  echo "$$project: makemigrations --check"; \
	  $(BIN)/python $$project/manage.py makemigrations --check --dry-run; \
	done

compose: ## Is docker-compose.yml valid, with throw-away values for the secrets of .env.example?
	@set -e; file=$$(mktemp); trap 'rm -f "$$file"' EXIT; \
	awk '/^[A-Z_]+=$$/ { $$0 = $$0 "throw-away" } 1' .env.example > "$$file"; \
	$(COMPOSE) -f docker-compose.yml --env-file "$$file" config -q

guarantees: ## Does docs/guarantees.md say which test shows which fault, and has each fault one?
	@$(PYTHON3) manage_scripts/fault_table.py --check

test: ## All tests, against real servers
	$(PYTHON3) manage_scripts/test.py

test-fast: ## The unit tests only
	$(PYTHON3) manage_scripts/test.py --fast

prove: ## The guarantees under some twenty faults, in a few minutes; PROVE=--full for all of them
	$(PYTHON3) manage_scripts/prove.py $(or $(PROVE),--quick)

mutations: ## Break each rule of delivery, and see a test turn red
	$(PYTHON3) manage_scripts/mutations.py

demo: ## NotifyX on embedded parts: nothing to install, nothing to configure
	$(PYTHON3) manage_scripts/demo.py

services: ## Start MariaDB, Redis, Kafka and an SMTP sink for development
	$(PYTHON3) manage_scripts/services.py start

lock: setup ## Compile the hashed requirements anew
	@set -e; for name in base production demo dev; do \
	  $(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
	    --no-header --no-annotate requirements/$$name.in --output-file requirements/$$name.txt; \
	  echo "requirements/$$name.txt"; \
	done
