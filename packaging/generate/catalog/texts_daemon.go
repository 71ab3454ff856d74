package catalog

// daemonTexts are those of internal/daemon, which both daemons write.
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
