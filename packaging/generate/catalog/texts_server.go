package catalog

// serverTexts are those of internal/datamovement/server.
var serverTexts = []text{
	{
		"dm-started", "info", "nnf-dm @VERSION@ has started on @NODE@",
		"The daemon has its socket, @SOCKET@, and answers. API_SERVER is whom it will ask when a client needs it.",
		"Jobs on this node can copy.",
		"Nothing. nnf-dm config dump shows every setting with its origin.",
	}, {
		"dm-idle", "info", "nnf-dm ends because nothing goes on",
		"For daemon.idle_timeout nobody has asked for anything, and no transfer was followed.",
		"None: whoever connects next starts it again, and notices nothing.",
		"Nothing. daemon.idle_timeout = \"0s\" keeps it running.",
	}, {
		"dm-created", "info", "User @UID@ has begun a data movement",
		"Process @PID@ has asked for a copy, and the object @OBJECT@ was made for the rabbit.",
		"The rabbit copies for workflow @WORKFLOW@, also when the process ends.",
		"Nothing. kubectl get nnfdatamovements shows how far it is.",
	}, {
		"dm-ended-by-user", "info", "User @UID@ has cancelled a data movement",
		"Process @PID@ has asked for the end of @OBJECT@.",
		"What is copied by then stays at the destination; the rest does not come.",
		"Nothing.",
	}, {
		"dm-refused", "warning", "A request of user @UID@ was refused",
		"Process @PID@ called @RPC@ for what is not its user's, is wrong in itself, or is over a limit. REASON says which, OBJECT what it was about.",
		"That request failed, and its sender was told. Nothing was changed, and nobody else notices.",
		"Mostly it is a mistake in a script. A user who tries what is another's, again and again, is worth a question. Limits are in [limits], rights in [access].",
	}, {
		"dm-suppressed", "warning", "@COUNT@ log records were suppressed",
		"Callers have caused more records of refused or failed requests than limits.log_records_per_second and limits.log_record_burst allow. The daemon has not logged @COUNT@ of them. UID is the user, unless there were many.",
		"None: suppressed records change no answer.",
		"Look at the records of the same user before this one: they say what is asked for, and by which process.",
	}, {
		"dm-api", "warning", "A request of user @UID@ failed because of the API server",
		"@RPC@ could not be served: the API server does not answer, refuses the object, or the account lacks a right. ERROR has its words, which users are not shown.",
		"The job was told to try again, or to tell you. Transfers that run go on.",
		"Look at ERROR: network, address and CA ([kubernetes]), or role and binding of the account.",
	}, {
		"dm-follow", "info, warning", "Data movements in @NAMESPACE@ are out of sight, or in sight again",
		"The watch on the API server has broken off and is tried again, or works again; the message says which.",
		"The rabbit copies on. Who asks gets the last state that is known, or UNAVAILABLE, and waits a little longer for the end.",
		"When it lasts: is the API server reachable from this node?",
	}, {
		"dm-config-refused", "error", "The new configuration is refused",
		"A reload was asked for and what the files say is wrong. Nothing was taken over; the daemon goes on with what it had.",
		"None now. But the daemon would not start with these files, and jobs on this node could not copy.",
		"nnf-dm config check names file and line. Correct it and reload again.",
	}, {
		"dm-panic", "error", "A defect of nnf-dm at one request",
		"The call @RPC@ of user @UID@ ended in a state that must not be. It was caught; other calls are not concerned.",
		"The caller was told that the daemon failed. Transfers go on.",
		"Please report it with ERROR and STACK.",
	},
}
