package catalog

// clientmountTexts explain the events of internal/clientmount.
var clientmountTexts = []text{
	{
		"started", "info", "clientmountd @VERSION@ has started on @NODE@",
		"The daemon has read its configuration and now asks for the ClientMounts of node @NODE@. It is ready when it knows them (record ready).",
		"Nothing changes: a start leaves mounts alone.",
		"Nothing. clientmountd config dump shows every setting with its origin.",
	}, {
		"mount-namespace", "error", "The host would not see what clientmountd mounts",
		"The daemon lives in a mount namespace of its own: what it mounted would be invisible to everybody else on this node. So it has not started.",
		"No storage is mounted on this node, and jobs that wait for it go on waiting. Mounts that are there stay.",
		"Look for Protect...=, Private...=, ReadOnly...= or MountFlags= in the unit and its drop-ins (systemctl cat clientmountd), take it out, then systemctl daemon-reload and restart.",
	}, {
		"ready", "info", "clientmountd is ready: @CLIENTMOUNTS@ ClientMounts",
		"The list of this node's ClientMounts has come from the API server. From here on every change is acted on.",
		"Mounts for jobs are made from now on.",
		"Nothing.",
	}, {
		"api", "info, warning", "The API server answers, does not answer, or refuses a request",
		"The daemon can follow the API server again, cannot follow it any more, or could not write to it; the message says which, and ERROR why.",
		"Mounts stay as they are, and running jobs notice nothing. Jobs that begin or end wait until it answers.",
		"Look at network, firewall, address and CA ([kubernetes] in the configuration), or at the right that ERROR names as missing. It goes on by itself.",
	}, {
		"mounted", "info", "A file system is mounted for @CLIENTMOUNT@",
		"The storage of ClientMount @CLIENTMOUNT@ is mounted; MOUNT_PATH says where, DEVICE what, DURATION_MS how long it took.",
		"The job of workflow @WORKFLOW@ can use it on this node.",
		"Nothing.",
	}, {
		"unmounted", "info", "@MOUNT_PATH@ is unmounted",
		"The file system of ClientMount @CLIENTMOUNT@ is no longer mounted on this node; block devices that were activated for it are inactive again.",
		"Workflow @WORKFLOW@ can go on without this node.",
		"Nothing.",
	}, {
		"failed", "debug, warning", "ClientMount @CLIENTMOUNT@ failed; it is tried again",
		"A step of mounting or unmounting failed. ERROR, and status.error of the ClientMount, name the step, the command, its output and the cause. It is logged once per text and tried again, ever more slowly up to mount.retry_max.",
		"The job of workflow @WORKFLOW@ waits. Other mounts on this node go on.",
		"HINT names what to look at first; docs/clientmountd.md explains the text of each step. When the cause is gone it goes on by itself.",
	}, {
		"refused", "error", "ClientMount @CLIENTMOUNT@ cannot be made true",
		"The object, its labels or its storage profile are wrong, or ask for what is refused because it is dangerous; ERROR says what. Nothing was done on this node.",
		"The failure is Fatal: workflow @WORKFLOW@ goes into an error and the job ends.",
		"Correct the storage profile, or what made the object. docs/security.md lists what is refused.",
	}, {
		"busy", "warning", "@MOUNT_PATH@ is in use: @HOLDER@",
		"The mount cannot be unmounted, or its device cannot be deactivated (STEP says which), because of @HOLDER@. HOLDER_PID is 0 if no process is the reason, but for example another mount or a loop device. There is one such record for each holder that was found.",
		"The job of workflow @WORKFLOW@ is over, but its workflow waits, and its storage is not given back, until the mount and the device are free.",
		"End the process, or ask its owner to; unmount or detach anything else that is named. clientmountd retries until it succeeds. If this happens often, the epilog of the workload manager leaves processes behind.",
	}, {
		"stuck", "warning, error", "A command hangs: process @PID@",
		"@COMMAND@ does not end, and cannot be killed while the kernel waits for a device, server or lock manager, or an earlier daemon left it behind. Meanwhile no other command is started for the same ClientMount, and none that changes the same volume group.",
		"What @CLIENTMOUNT@ wants waits, and workflow @WORKFLOW@ with it. Mounts of other volume groups on this node are not affected.",
		"/proc/@PID@/stack shows what the kernel waits for. Look at the device (nvme list, dmesg), at the Lustre servers, at the locks (dlm_tool ls). It goes on when that answers; if it never will, drain the node and reboot it.",
	}, {
		"orphan", "info, warning", "A mount of @CLIENTMOUNT@ has outlived its ClientMount, or been taken over",
		"A ClientMount went away while its file systems were mounted, for example because somebody took its finalizer off. The message says whether they are left mounted, could not be unmounted, or were taken over by a newer ClientMount.",
		"A job may still use them. As long as they are mounted, storage is not really free, although its object is gone.",
		"When no job uses them, unmount PATHS manually, deactivate the volume, and remove the record in the runtime directory; or set mount.orphans = \"unmount\".",
	}, {
		"leftover", "debug, info", "The mount target @MOUNT_PATH@, or a directory above it, was left behind",
		"The file system is unmounted, but what was made for its mount target could not all be removed; LEFT names what stayed. At level info the target itself stayed, ERROR says why: something was put there, or uses it. At level debug only directories above it stayed, because they are in use for something else, for example another mount.",
		"None.",
		"Look what is in it and remove it manually when it is in the way.",
	}, {
		"record", "warning, error", "A record of a mount could not be read or removed",
		"Before each mount the daemon notes in its runtime directory what it is about to do. Such a record is unreadable, could not be removed, or had to serve because the storage profile is not available; the message says which, ERROR why.",
		"Mounts stay. An unmount goes by the storage profile, or when that is gone by the shipped commands.",
		"Look at the files in mounts below the runtime directory (/run/clientmountd): owner root, closed to others, disk not full.",
	}, {
		"diagnosis", "warning", "Devices and locks after a deactivation that was no ordinary one",
		"A logical volume of ClientMount @CLIENTMOUNT@ could not be deactivated: NAMESPACES lists the NVMe namespaces that the node sees, DLM the lockspaces. Or its storage had gone away before, and what was left of it on the node, DEVICE, has been removed.",
		"The unmount of workflow @WORKFLOW@ waits until the deactivation succeeds. After storage that went away it goes on; data that had not reached the storage is lost.",
		"Is a namespace missing, the rabbit took it away too early. Is a lockspace stuck, look at dlm and its cluster. The record failed has the error itself.",
	}, {
		"rescan", "debug, warning", "NVMe controllers were scanned again for @CLIENTMOUNT@",
		"The storage was not there yet, or goes away, and the controllers that the ClientMount names were scanned again. As a warning: that failed.",
		"None of its own. When storage stays missing, a record failed follows.",
		"For a warning look at the controller (nvme list-subsys). It holds nothing up.",
	}, {
		"hook", "info", "Hook @PHASE@ has printed something",
		"A command that the storage profile runs before or after mounting printed what OUTPUT has. It succeeded.",
		"None.",
		"Nothing; it is the profile's author who wanted to be heard.",
	}, {
		"step", "debug", "One step of mounting or unmounting",
		"STEP of ClientMount @CLIENTMOUNT@ has ended after DURATION_MS, with an ERROR or without.",
		"None of its own.",
		"Nothing. These records are for finding out where time goes; log.level = \"info\" ends them.",
	}, {
		"servers", "warning", "The Lustre servers file of @MOUNT_PATH@ could not be written",
		"mount.servers_file is on, and .nnf-servers.json could not be written into the root of the file system; ERROR says why.",
		"The mount is fine. A program that reads the file does not find it.",
		"The account needs the right to get nnfstorages and servers, which the shipped role does not give; and the file system must be writable.",
	}, {
		"config-refused", "error", "The new configuration is refused",
		"A reload was asked for and what the files say is wrong. Nothing was taken over; the daemon goes on with what it had.",
		"None now. But the daemon would not start with these files, and jobs on this node would wait.",
		"clientmountd config check names file and line. Correct it and reload again.",
	}, {
		"panic", "error", "A defect of clientmountd at ClientMount @CLIENTMOUNT@",
		"Working on this object ended in a state that must not be. It was caught, and is tried again; other objects are not concerned.",
		"The job of workflow @WORKFLOW@ waits.",
		"Please report it with PANIC and STACK. Whether something else about the object is odd, kubectl get clientmounts -o yaml shows.",
	},
}

// daemonTexts explain the events of internal/daemon, which both daemons log.
var daemonTexts = []text{
	{
		"reload", "info", "The configuration was read again",
		"CHANGED names the settings whose new value is in effect, NEEDS_RESTART those that changed and wait for a restart.",
		"None.",
		"Restart the daemon when NEEDS_RESTART names something; mounts and transfers are not touched by that.",
	}, {
		"stopping", "info", "The daemon is asked to stop",
		"A signal came, or the work has ended by itself. Nothing new is begun, what runs may end within @LIMIT@.",
		"Mounts and transfers go on. What is asked for from now on waits for the next start.",
		"Nothing.",
	}, {
		"stopped", "info", "The daemon has ended with exit code @EXIT_CODE@",
		"Everything that ran has ended in order, or the records before this one say why not.",
		"Mounts and transfers are as they were. Jobs that begin or end on this node wait for the next start.",
		"Nothing when the code is 0; else look at the records before this one.",
	}, {
		"stop-forced", "error", "The daemon was ended before its work was",
		"A second signal came, or the time for the shutdown was over. What still ran: @LEFT@.",
		"A step of a mount may be half done. The next start finds out by the records, and goes on.",
		"Start the daemon again. If it took too long because commands are slow, raise daemon.shutdown_timeout, and TimeoutStopSec= of the unit above it.",
	}, {
		"loop-stuck", "error", "The daemon does not answer its own watchdog",
		"Its main loop, or its socket, did not answer in time. It gets no more pings to systemd, which will end it after @WATCHDOG@ and start it again.",
		"Mounts and transfers stay. What is asked for on this node waits for the restart, at most some seconds.",
		"Was the node out of memory or processors? If not, please report it with the goroutines that the journal shows when the process is ended.",
	}, {
		"loop-answers", "warning", "The daemon answers its watchdog again",
		"It did not for a while (record loop-stuck), and does now, before systemd lost patience.",
		"What waited goes on.",
		"Was the node overloaded? When it comes again and again, raise WatchdogSec= in a drop-in and tell us.",
	}, {
		"panic", "error", "A defect has ended the daemon, or a reload of it",
		"The program came into a state that must not be: @ERROR@. systemd starts it again.",
		"Mounts and transfers stay. What was being done is found by the records and goes on after the restart.",
		"Please report it with STACK.",
	},
}

// serverTexts explain the events of internal/datamovement/server.
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
