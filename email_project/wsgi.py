from shared_events.service.command_line import wsgi_application

application = wsgi_application("email_project.settings")
