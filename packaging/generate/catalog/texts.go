package catalog

// clientmountTexts explain the events of internal/clientmount.
var clientmountTexts = []explanation{
	{
		"started", "info", "clientmountd @VERSION@ has started on @NODE@",
		"The daemon has read its configuration and now requests the ClientMounts of node @NODE@ from the API server. It logs the record ready when it has received them.",
		"No effect: starting the daemon does not change any mount.",
		"Nothing. clientmountd config dump shows every setting and where its value comes from.",
	}, {
		"mount-namespace", "error", "clientmountd does not start in a private mount namespace",
		"The daemon runs in a private mount namespace: no other process on this node would see the file systems that it mounts. It did not start.",
		"No storage is mounted on this node, and jobs that need it keep waiting. Existing mounts stay.",
		"Find Protect...=, Private...=, ReadOnly...= or MountFlags= in the unit and its drop-ins (systemctl cat clientmountd) and remove it. Then run systemctl daemon-reload and restart the daemon.",
	}, {
		"ready", "info", "clientmountd is ready: @CLIENTMOUNTS@ ClientMounts",
		"The daemon has received the list of this node's ClientMounts from the API server. From now on it acts on every change.",
		"The daemon mounts storage for jobs from now on.",
		"Nothing.",
	}, {
		"api", "debug, info, warning", "A watch on the API server, or a request to it, failed or works again",
		"The daemon has lost or regained its watch on the API server, or could not read or write an object. The message says which, and ERROR gives the reason.",
		"Mounts stay as they are, and running jobs are not affected. Jobs that start or end wait until the API server answers.",
		"Check the network, the firewall, and the address and CA of the API server ([kubernetes] in the configuration), or grant the permission that ERROR names. The daemon retries until it succeeds.",
	}, {
		"mounted", "info", "A file system is mounted for @CLIENTMOUNT@",
		"The storage of ClientMount @CLIENTMOUNT@ is mounted. MOUNT_PATH is the mount point, DEVICE the mounted device, and DURATION_MS the time that it took.",
		"The job of workflow @WORKFLOW@ can use the storage on this node.",
		"Nothing.",
	}, {
		"unmounted", "info", "@MOUNT_PATH@ is unmounted or released",
		"ClientMount @CLIENTMOUNT@ no longer uses the file system on this node. It is unmounted, and the block devices that were activated for it are inactive unless something else uses them. If another ClientMount still uses the file system, it stays mounted, and USED_BY names that ClientMount.",
		"Workflow @WORKFLOW@ no longer waits for this mount.",
		"Nothing.",
	}, {
		"failed", "debug, warning", "ClientMount @CLIENTMOUNT@ failed; clientmountd retries",
		"A step of mounting or unmounting failed. ERROR, and status.error of the ClientMount, give the step, the command, its output and the cause. The daemon logs each error text once. It retries with growing delays, up to mount.retry_max.",
		"The job of workflow @WORKFLOW@ waits. Other mounts on this node are not affected.",
		"Start with what HINT suggests; reference/clientmountd.md in the documentation explains the error text of each step. The daemon continues as soon as the cause is removed.",
	}, {
		"refused", "error", "ClientMount @CLIENTMOUNT@ is refused",
		"The object, its labels or its storage profile are invalid, or request something that the daemon refuses because it is dangerous. ERROR gives the reason. The daemon did nothing on this node.",
		"The error is Fatal: workflow @WORKFLOW@ enters an error state and the job ends.",
		"Correct the storage profile, or the component that created the object. security.md in the documentation lists what is refused.",
	}, {
		"busy", "warning", "@MOUNT_PATH@ is in use: @HOLDER@",
		"The file system cannot be unmounted, or its device cannot be deactivated (STEP says which), because of @HOLDER@. HOLDER_PID is 0 if the holder is not a process but, for example, another mount or a loop device. The daemon logs one record for each holder that it finds, up to 16.",
		"The job of workflow @WORKFLOW@ is over. The workflow waits, and its storage is not released, until the mount and the device are free.",
		"End the process, or ask its owner to end it. Unmount or detach any other holder. clientmountd retries until it succeeds. If this happens often, the epilog of the workload manager leaves processes behind; the setting mount.busy makes clientmountd end processes of ordinary users.",
	}, {
		"signalled", "warning", "@SIGNAL@ sent to a process that keeps @MOUNT_PATH@ busy",
		"The file system could not be unmounted for mount.busy_grace, so the daemon sent @SIGNAL@ to process @HOLDER_PID@ of user @HOLDER_UID@, which used it (HOLDER). REASON has the policy and how long the mount has been busy. The daemon logs one record for each signal; a process gets each signal only once.",
		"The job of workflow @WORKFLOW@ is over. If the process does not handle the signal, it ends, and data that it had not written is lost.",
		"Nothing. To find out where such processes come from, look at HOLDER_UNIT and HOLDER_COMMAND. To turn this off, set mount.busy = \"report\".",
	}, {
		"not-signalled", "warning", "A process that keeps @MOUNT_PATH@ busy gets no signal: @REASON@",
		"mount.busy is terminate or kill, but a process that uses the file system (HOLDER) gets no signal, or none does: REASON says why. Processes of root and of system users, and processes that the daemon has started, never get one. The daemon logs one record for each process and reason.",
		"Workflow @WORKFLOW@ waits, and its storage is not released, until the file system is no longer in use.",
		"End the process, for example by stopping its unit (HOLDER_UNIT). If REASON is about user IDs, check UID_MIN in /etc/login.defs or set mount.busy_min_uid.",
	}, {
		"stuck", "warning, error", "A command hangs: process @PID@",
		"@COMMAND@ does not finish. Either it cannot be killed while the kernel waits for a device, a server or a lock manager, or a previous daemon left it running. Until it ends, the daemon starts no other command for the same ClientMount, and none that changes the same volume group.",
		"ClientMount @CLIENTMOUNT@ waits, and so does workflow @WORKFLOW@. Mounts of other volume groups on this node are not affected.",
		"/proc/@PID@/stack shows what the kernel waits for. Check the device (nvme list, dmesg), the Lustre servers and the locks (dlm_tool ls). The daemon continues when the process ends. If it never does, drain the node and reboot it.",
	}, {
		"orphan", "info, warning", "A mount outlived its ClientMount, or was taken over: @CLIENTMOUNT@",
		"A ClientMount was deleted while its file systems were mounted, for example because its finalizer was removed manually. The message says whether they are left mounted, could not be unmounted, or were taken over by a newer ClientMount.",
		"A job may still use the file systems. While they are mounted, the storage is in use although its object is gone.",
		"When no job uses the file systems, unmount those in PATHS manually, deactivate the volume, and remove the record in the runtime directory. Alternatively, set mount.orphans = \"unmount\".",
	}, {
		"leftover", "debug, info, warning", "The mount target @MOUNT_PATH@, or a directory above it, was left behind",
		"The file system is unmounted, but something remains at its mount target. At level warning, another mount is there (DEVICE, TYPE), which the daemon does not touch. At level info, the daemon could not remove the target that it had created, for example because it is not empty or is in use; ERROR gives the reason. At level debug, only directories above the target remain, for example because they hold another mount, or removing them failed again. LEFT lists what remains.",
		"No effect.",
		"If it is in the way, check what it contains and remove it manually.",
	}, {
		"record", "warning, error", "A record of a mount could not be read, written or removed, or was needed",
		"Before each mount the daemon saves a record of it in its runtime directory. A record could not be read, written or removed, or the daemon used it because the storage profile is not available. The message says which, and ERROR gives the reason.",
		"Mounts stay. To unmount, the daemon uses the storage profile if it still exists, otherwise the record, otherwise the built-in commands.",
		"Check the files in the directory mounts of the runtime directory (/run/clientmountd): root must own them, no other user may have access, and the file system must not be full.",
	}, {
		"diagnosis", "warning", "State of devices and locks after a deactivation problem",
		"Either a logical volume of ClientMount @CLIENTMOUNT@ could not be deactivated: NAMESPACES lists the NVMe namespaces that the node sees, DLM the lockspaces. Or the storage was detached before its volume was deactivated, and the daemon removed the stale device DEVICE.",
		"If the deactivation failed, the unmount of workflow @WORKFLOW@ waits until it succeeds. If the storage was detached, the unmount continues, but data that had not reached the storage is lost.",
		"If a namespace is missing, the rabbit detached it too early. If a lockspace is stuck, check dlm and its cluster. The record failed contains the error.",
	}, {
		"rescan", "debug, warning", "NVMe controllers were scanned again for @CLIENTMOUNT@",
		"The daemon scanned the controllers of the ClientMount again because its storage has not appeared yet or is being detached. At level warning, the scan failed, or namespaces are still attached although the ClientMount is deleted.",
		"The scan itself has no effect. If the storage stays missing, a record failed follows.",
		"At level warning, check the controller (nvme list-subsys). The daemon does not wait for it.",
	}, {
		"hook", "info", "Hook @PHASE@ printed output",
		"A command that the storage profile runs before or after mounting or unmounting succeeded and printed the text in OUTPUT.",
		"No effect.",
		"Nothing. The text comes from the author of the storage profile.",
	}, {
		"step", "debug", "One step of mounting or unmounting",
		"STEP of ClientMount @CLIENTMOUNT@ finished after DURATION_MS. If it failed, ERROR gives the reason.",
		"No effect.",
		"Nothing. These records show where time is spent; log.level = \"info\" turns them off.",
	}, {
		"servers", "warning", "The Lustre servers file of @MOUNT_PATH@ could not be written",
		"mount.servers_file is on, and the daemon could not write .nnf-servers.json into the root of the file system. ERROR gives the reason.",
		"The mount is complete. A program that reads the file does not find it.",
		"Allow the account to get nnfstorages and to list servers, which the shipped role does not include, and make sure that the file system is writable.",
	}, {
		"metrics", "info, warning", "The metrics for Prometheus could not be written, or are written again",
		"The daemon could not replace the file of metrics.textfile, which is PATH; ERROR gives the reason. It logs each error text once, and tries again when a metric changes. At level info, it has succeeded again.",
		"Mounts are not affected. The metrics of this node are those of the last successful write.",
		"Create the directory, or correct metrics.textfile. If the file system is full or does not respond, correct that.",
	}, {
		"config-refused", "error", "The new configuration is refused",
		"A reload was requested, but the configuration files contain an error. The daemon keeps the configuration that it had.",
		"No effect now. But the daemon could not start with these files, and jobs on this node would wait.",
		"Run clientmountd config check, which reports file and line. Correct the error and reload again.",
	}, {
		"clientmount-panic", "error", "Internal error of clientmountd at ClientMount @CLIENTMOUNT@",
		"An internal error occurred while the daemon worked on this object. The daemon retries; other objects are not affected.",
		"The job of workflow @WORKFLOW@ waits.",
		"Report it with PANIC and STACK. Check the object for anything unusual with kubectl get clientmounts -o yaml.",
	},
}

// daemonTexts explain the events of internal/daemon, which both daemons log.
var daemonTexts = []explanation{
	{
		"reload", "info", "The configuration was read again",
		"CHANGED lists the settings whose new value is in effect. NEEDS_RESTART lists those that changed but take effect only after a restart.",
		"No effect.",
		"Restart the daemon if NEEDS_RESTART lists a setting. A restart does not affect mounts or data movements.",
	}, {
		"stopping", "info", "The daemon is stopping",
		"The daemon received a signal, was idle, or failed. It starts no new work. Running work may finish within @LIMIT@.",
		"Mounts stay, and data movements continue. New requests wait until the daemon is started again.",
		"Nothing.",
	}, {
		"stopped", "info", "The daemon has exited with code @EXIT_CODE@",
		"All running work has finished. If it has not, earlier records give the reason.",
		"Mounts stay, and data movements continue. Jobs that start or end on this node wait until the daemon is started again.",
		"Nothing if the exit code is 0. Otherwise, read the records before this one.",
	}, {
		"stop-forced", "error", "The daemon exited before its work was finished",
		"A second signal arrived, or the shutdown timeout expired. Unfinished work: @LEFT@.",
		"A step of a mount may be incomplete. On its next start the daemon reads its records and completes it.",
		"Start the daemon again. If slow commands caused this, raise daemon.shutdown_timeout, and keep TimeoutStopSec= of the unit more than 5 seconds longer than that.",
	}, {
		"loop-stuck", "error", "The daemon does not respond to its watchdog check",
		"The main loop or the socket of the daemon did not respond in time. The daemon has stopped sending watchdog pings; after @WATCHDOG@ without a ping, systemd kills the daemon and restarts it.",
		"Mounts stay, and data movements continue. Requests on this node wait for the restart, which takes a few seconds.",
		"Check whether the node was short of memory or CPU time. If it was not, report a bug with the stacks of all goroutines, which the daemon writes to the journal when systemd kills it.",
	}, {
		"loop-answers", "warning", "The daemon responds to its watchdog check again",
		"The daemon did not respond for a while (record loop-stuck). It responded again before systemd killed it.",
		"Requests that waited are processed.",
		"Check whether the node was overloaded. If this happens repeatedly, raise WatchdogSec= in a drop-in and report it.",
	}, {
		"token-renewed", "info", "The token of the daemon was renewed or stored",
		"The daemon has requested the next token for @ACCOUNT@. It expires at @EXPIRES@, and the daemon renews it at NEXT.",
		"No effect.",
		"Nothing.",
	}, {
		"token-not-renewed", "warning", "The token of the daemon cannot be renewed or stored",
		"The daemon cannot request the next token for @ACCOUNT@, or cannot store it; ERROR gives the reason. The present token is valid until @EXPIRES@, and the daemon retries until then. While there is enough time, the level is info or debug.",
		"No effect until the token expires. A token that is not stored is lost at the next restart; the daemon then uses the older one.",
		"Follow HINT. If the API server cannot be reached, check the network. If the token cannot be stored, check the state directory (daemon.state_directory) and the free space of its file system.",
	}, {
		"token-expired", "error", "The token of the daemon has expired",
		"The token in @FILE@ expired at @EXPIRES@, and the daemon could not renew it: the node was off for longer than the token is valid, or renewals failed.",
		"Mounts stay, and running data movements continue. Jobs that start or end on this node wait until the daemon has a new token.",
		"Run the command in HINT on the administrator's host. The daemon uses the new token without a restart.",
	}, {
		"panic", "error", "An internal error ended the daemon, or a reload of its configuration",
		"The program encountered an internal error: @ERROR@. If the daemon exited, systemd restarts it. If only a reload failed, it keeps running.",
		"Mounts stay, and data movements continue. After a restart the daemon reads its records and continues the interrupted work.",
		"Report it with STACK.",
	},
}

// serverTexts explain the events of internal/datamovement/server.
var serverTexts = []explanation{
	{
		"dm-started", "info", "nnf-dm @VERSION@ has started on @NODE@",
		"The daemon listens on its socket, @SOCKET@, and answers requests. API_SERVER is the API server that it contacts when a client needs it.",
		"Jobs on this node can copy.",
		"Nothing. nnf-dm config dump shows every setting and where its value comes from.",
	}, {
		"dm-idle", "info", "nnf-dm exits because it is idle",
		"For daemon.idle_timeout there was no request, and no client followed a data movement.",
		"No effect: the next connection starts the daemon again, and the client does not notice.",
		"Nothing. daemon.idle_timeout = \"0s\" keeps the daemon running.",
	}, {
		"dm-created", "info", "User @UID@ has started a data movement",
		"Process @PID@ requested a copy, and the daemon created the object @OBJECT@ for the rabbit.",
		"The rabbit copies for workflow @WORKFLOW@, even if the process ends.",
		"Nothing. kubectl get nnfdatamovements shows the progress.",
	}, {
		"dm-ended-by-user", "info", "User @UID@ has cancelled a data movement",
		"Process @PID@ requested the cancellation of @OBJECT@.",
		"Data that is already copied stays at the destination. The rest is not copied.",
		"Nothing.",
	}, {
		"dm-refused", "warning", "A request of user @UID@ was refused",
		"Process @PID@ called @RPC@. The request concerns objects of another user, is invalid, or exceeds a limit. REASON gives the cause, and OBJECT is the object of the request.",
		"The request failed, and the caller received the reason. Nothing was changed, and other users are not affected.",
		"Usually a script is wrong. If a user repeatedly requests objects of other users, find out why. The settings in [limits] and [access] decide what is refused.",
	}, {
		"dm-suppressed", "warning", "@COUNT@ log records were suppressed",
		"Callers caused more records of refused or failed requests than limits.log_records_per_second and limits.log_record_burst allow. The daemon did not log @COUNT@ of them. UID is the user, if all of them concern one user.",
		"No effect: the callers received their answers.",
		"Read the earlier records of the same user: they show the requests and the processes that sent them.",
	}, {
		"dm-api", "warning", "A request of user @UID@ failed because of the API server",
		"@RPC@ failed: the API server does not answer, refuses the object, or the account lacks a permission. ERROR is its answer, which the daemon does not show to users.",
		"The caller was asked to retry, or to contact an administrator. Running data movements continue.",
		"Depending on ERROR, check the network, the address and CA of the API server ([kubernetes]), or the role and binding of the account.",
	}, {
		"dm-follow", "info, warning", "The watch on data movements in @NAMESPACE@ failed or works again",
		"The watch on the API server has failed and the daemon retries, or it works again. The message says which.",
		"The rabbit keeps copying. Clients receive the last known state or UNAVAILABLE, and wait longer for the end of a copy.",
		"If it lasts, check whether this node can reach the API server.",
	}, {
		"dm-config-refused", "error", "The new configuration is refused",
		"A reload was requested, but the configuration files contain an error. The daemon keeps the configuration that it had.",
		"No effect now. But the daemon could not start with these files, and jobs on this node could not copy.",
		"Run nnf-dm config check, which reports file and line. Correct the error and reload again.",
	}, {
		"dm-panic", "error", "Internal error of nnf-dm in one request",
		"An internal error occurred during the call @RPC@ of user @UID@. Other calls are not affected.",
		"The caller received an internal error. Data movements continue.",
		"Report it with ERROR and STACK.",
	},
}
