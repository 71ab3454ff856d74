package reference

import (
	"slices"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// toolCommands returns the commands of a program with sub-commands, with their flags and examples.
func toolCommands(g cli.Guide) string {
	var b strings.Builder
	for _, c := range g.Commands {
		b.WriteString("### " + c.Name + "\n\n    " + c.Synopsis + "\n\n" + Sentence(c.Short) + "\n\n")
		for paragraph := range strings.SplitSeq(c.Long, "\n\n") {
			if paragraph != "" {
				b.WriteString(text.Wrap(100, "", "", mark(paragraph)) + "\n")
			}
		}
		if len(c.Flags) > 0 {
			b.WriteString(flagTable(c.Flags) + "\n")
		}
		for _, e := range c.Examples {
			b.WriteString(e.Comment + "\n\n    " + strings.ReplaceAll(e.Lines, "\n", "\n    ") + "\n\n")
		}
	}
	return b.String()
}

func flagTable(flags []cli.Flag) string {
	var rows [][]string
	for _, f := range flags {
		name := code("--" + strings.TrimSpace(f.Name+" "+f.Value))
		if f.Letter != "" {
			name = code("-"+f.Letter) + ", " + name
		}
		rows = append(rows, []string{name, mark(f.Meaning), code(f.Default)})
	}
	return table([]string{"flag", "meaning", "default"}, rows)
}

func environment(g cli.Guide) string {
	var rows [][]string
	for _, e := range g.Environment {
		rows = append(rows, []string{codes(strings.Split(e.Name, ", ")), mark(e.Meaning)})
	}
	return table([]string{"name", "meaning"}, rows)
}

func toolExits(g cli.Guide) string {
	var rows [][]string
	for _, e := range g.Exits {
		rows = append(rows, []string{strconv.Itoa(e.Code), mark(e.Meaning)})
	}
	return table([]string{"code", "meaning"}, rows)
}

// document is the output of commands with -o json, or a file.
type document struct {
	title  string
	fields []field
}

func documentTables(program string) string {
	var b strings.Builder
	for _, d := range documents[program] {
		b.WriteString("### " + d.title + "\n\n")
		if name := schemaName(program, d.title); name != "" {
			b.WriteString("JSON Schema: " + code(name) + "\n\n")
		}
		b.WriteString(fieldTable(d.fields) + "\n")
	}
	return b.String()
}

// causes explains the causes of problems.
func causes() string {
	var list []string
	for _, c := range mountstate.Causes {
		list = append(list, code(string(c.Cause))+" ("+c.Meaning+")")
	}
	return strings.Join(list, ", ") + ". The list is sorted: a drain first, then in this order"
}

// tokenFields explains the state of the token of clientmountd.
func tokenFields(object string) []field {
	return tokenOf(object, "The object is missing if the daemon does not run, or does not use a token file")
}

// moverTokenFields explains the state of the token of nnf-dm.
func moverTokenFields(object string) []field {
	return tokenOf(object, "The object is missing if nnf-dm has recorded no token of an account of its own on this node, or another token was installed since")
}

func tokenOf(object, missing string) []field {
	return []field{
		{object + ".identity", "account of the token of the daemon: `per-node`, `shared` or `other`. " + missing},
		{object + ".account", "user name in the token"},
		{object + ".file", "file with the token; missing if only the daemon has it"},
		{object + ".expires", "when it expires; missing if it does not"},
		{object + ".renewal", "when the daemon requests the next token, or tries again; missing if it does not"},
		{object + ".condition", "`valid`; `retrying` if a renewal has failed; `failing` if it was not renewed in half of the time for that; `expired`; `unsaved` if the renewed token cannot be stored; or `unknown` if the record of nnf-dm cannot be read"},
		{object + ".since", "start of a condition other than `valid`"},
		{object + ".error", "why the last renewal failed, the token is not stored, or the record cannot be read"},
		{object + ".hint", "what the administrator should do"},
	}
}

// documents are the JSON documents of the programs with sub-commands.
var documents = map[string][]document{
	"clientmountd": {
		{"Output of mounts and wait", slices.Concat([]field{
			{"version", "version of this format: 1. It changes if a field is removed or changes its meaning, not if fields are added"},
			{"node", "name of the node"},
			{"time", "when the document was made (RFC 3339)"},
			{"daemon.running", "whether the daemon runs"},
			{"daemon.pid", "its process id; missing if it does not run"},
			{"daemon.since", "when it started, or when it stopped; missing if this is not known"},
			{"daemon.api", "its connection to the API server: `connected`, `connecting`, `unreachable`, or `unknown` if the daemon does not run"},
			{"daemon.api_since", "since when; missing if this is not known"},
			{"daemon.api_error", "the last error of a connection that is down"},
		}, tokenFields("daemon.token"), []field{
			{"mounts[].clientmount", "name of the ClientMount; the list is sorted by it"},
			{"mounts[].uid", "UID of the ClientMount"},
			{"mounts[].workflow", "name of the workflow"},
			{"mounts[].path", "mount path"},
			{"mounts[].type", "`lustre`, `xfs`, `gfs2`, `raw` or `none`"},
			{"mounts[].device", "device or server of the file system"},
			{"mounts[].state", "`mounting`, `mounted`, `unmounting`, `unmounted`, `failed`, `busy`, `stuck` or `orphan`"},
			{"mounts[].since", "when it got into this state"},
			{"mounts[].phase", "what is being done, or has failed: `mount` or `unmount`"},
			{"mounts[].failure.kind", "why the last attempt failed: `busy`, `stuck`, `device`, `api`, `refused` or `other`"},
			{"mounts[].failure.step", "the step that failed"},
			{"mounts[].failure.text", "the error"},
			{"mounts[].failure.since", "when an attempt first failed in this way"},
			{"mounts[].holders[].pid", "process that keeps the mount in use, as last found; missing if it is not a process"},
			{"mounts[].holders[].uid", "its user id"},
			{"mounts[].holders[].command", "its name"},
			{"mounts[].holders[].text", "the same for people"},
			{"mounts[].commands[].pid", "a command that runs for the mount now"},
			{"mounts[].commands[].program", "its name"},
			{"mounts[].commands[].line", "its command line"},
			{"mounts[].commands[].started", "when it started"},
			{"mounts[].commands[].kernel", "whether it waits in the kernel and cannot be killed"},
			{"mounts[].commands[].waits", "the function of the kernel in which it waits, if known"},
			{"mounts[].commands[].daemon", "whether the running daemon has started it"},
			{"unreadable[]", "errors of records that cannot be used; something may be mounted"},
		}, moverTokenFields("nnf_dm_token"))},
		{"Output of health", slices.Concat([]field{
			{"version", "version of this format: 1. It changes if a field is removed or changes its meaning, not if fields are added"},
			{"node", "name of the node; empty if it is not known"},
			{"time", "when the state was read (RFC 3339)"},
			{"verdict", "`ok`, `problem`, or `unknown` if the state of the node cannot be read; the exit code is 0, 1 or 3"},
			{"action", "what the node needs: `drain`, `wait` if clientmountd completes the work when the cause is gone, or `none`"},
			{"line", "the line that is printed without `-o json`; missing unless `verdict` is `problem`"},
			{"error", "why the verdict is `unknown`"},
			{"problems[].cause", causes()},
			{"problems[].action", "what the node needs because of it: `drain`, `wait` or `none`. A problem with `none` does not change the verdict"},
			{"problems[].clientmount", "name of the ClientMount; missing if the problem concerns the node"},
			{"problems[].workflow", "name of the workflow"},
			{"problems[].path", "mount path"},
			{"problems[].since", "when it started; missing if this is not known"},
			{"problems[].text", "object, age and reason in one line"},
		}, tokenFields("token"), moverTokenFields("nnf_dm_token"))},
		{"Output of doctor", doctorFields},
		{"Output of timeline", []field{
			{"version", "version of this format: 1. It changes if a field is removed or changes its meaning, not if fields are added"},
			{"node", "name of the node"},
			{"time", "when the document was made (RFC 3339)"},
			{"lives[].clientmount", "name of the ClientMount; the list is sorted by `started`"},
			{"lives[].uid", "UID of the ClientMount"},
			{"lives[].workflow", "name of the workflow"},
			{"lives[].started", "start of the first attempt to mount"},
			{"lives[].ready", "when all its mounts were ready; missing if they never were"},
			{"lives[].ended", "when its record was removed; missing if it has one"},
			{"lives[].steps[].path", "mount path; missing for a step of the ClientMount"},
			{"lives[].steps[].phase", "`mount` or `unmount`"},
			{"lives[].steps[].kind", "`hook` (a command of the storage profile), `activate` (volume and locks), `wait` (for a volume group or device), `mount`, `api` (a request) or `retry` (the pause before the next try)"},
			{"lives[].steps[].name", "name of the step; unique within a phase of a mount"},
			{"lives[].steps[].started", "start of the first try"},
			{"lives[].steps[].seconds", "time of all tries together"},
			{"lives[].steps[].tries", "number of tries"},
			{"lives[].steps[].failed", "whether the last try failed"},
			{"lives[].steps[].error", "error of the last try that failed, shortened"},
			{"lives[].steps[].finished", "end of the last try"},
			{"lives[].dropped", "number of steps that were not kept"},
		}},
	},
	"nnf-dmctl": {
		{"Output of copy", []field{
			{"batch", "handle of the batch, if there are several pairs"},
			{"copies[].source", "source, as given on the command line"},
			{"copies[].destination", "destination, as given on the command line"},
			{"copies[].id", "id of the copy, if it was started"},
			{"copies[].error", "why the copy was not started"},
			{"copies[].hint", "what to do about it"},
		}},
		{"Output of copy --wait, wait, status, list and cancel --wait", []field{
			{"copies[].id", "id of the copy; the list is sorted by it"},
			{"copies[].batch", "handle of its batch"},
			{"copies[].state", "`pending`, `starting`, `running`, `cancelling`, `completed` or `unknown`"},
			{"copies[].result", "only with state `completed`: `success`, `failed`, `invalid` (the rabbit rejected the request), `cancelled` or `deleted`"},
			{"copies[].message", "message of the rabbit, such as the output of the copying command"},
			{"copies[].source", "source, as the rabbit sees it"},
			{"copies[].destination", "destination, as the rabbit sees it"},
			{"copies[].percent", "progress in percent"},
			{"copies[].elapsed_seconds", "how long the copying command has run, in seconds"},
			{"copies[].rate", "transfer rate, as the copying command writes it"},
			{"copies[].data", "amount of copied data, as the copying command writes it"},
			{"copies[].left", "time left, as the copying command writes it"},
			{"copies[].items", "number of copied items; known when the copy has ended"},
			{"copies[].directories", "number of copied directories; known when the copy has ended"},
			{"copies[].files", "number of copied files; known when the copy has ended"},
			{"copies[].links", "number of copied links; known when the copy has ended"},
			{"copies[].command", "the copying command"},
			{"copies[].last_message", "the last line that the copying command has written"},
			{"copies[].last_message_time", "when that line was written"},
			{"copies[].start_time", "when the copy started"},
			{"copies[].end_time", "when the copy ended"},
			{"copies[].restarts", "how often the rabbit had to start the copy again"},
		}},
		{"Output of doctor", doctorFields},
		{"Output of version", []field{
			{"client", "version of nnf-dmctl"},
			{"daemon", "version of the daemon, if it can be reached"},
			{"api_versions", "versions of the API that the daemon serves"},
		}},
	},
	"nnf-deploy": {
		{"Output of credentials", []field{
			{"server", "address of the API server with which the credentials were checked"},
			{"host", "host at which compute nodes reach the API server"},
			{"port", "port at which compute nodes reach the API server"},
			{"credentials[].daemon", "name of the daemon"},
			{"credentials[].namespace", "namespace of the service account"},
			{"credentials[].service_account", "name of the service account"},
			{"credentials[].source", "where the token comes from"},
			{"credentials[].identity", "`shared` or `per-node`, as given with `--identity`"},
			{"credentials[].bound", "whether the token was requested and expires, and is not that of a Secret"},
			{"credentials[].node", "node that the token is bound to"},
			{"credentials[].expires", "when the token expires (RFC 3339); null if it does not expire"},
			{"credentials[].rights_checked", "number of permissions that were checked"},
			{"credentials[].files[].path", "path of a file that was written"},
			{"credentials[].files[].change", "`new`, `changed` or `unchanged`"},
			{"credentials[].notes", "notes, for people"},
		}},
		{"Output of install and uninstall", []field{
			{"counts", "number of nodes for each value of `result`"},
			{"nodes[].node", "name of the node"},
			{"nodes[].result", "`ok`, `unchanged`, `differs` (with `--dry-run`), `failed`, `skipped` or `interrupted`"},
			{"nodes[].seconds", "how long the node took"},
			{"nodes[].cause", "why the node failed"},
			{"nodes[].hint", "what to do about it"},
			{"nodes[].changes", "what was changed, or would be changed"},
			{"nodes[].notes", "notes, for people"},
			{"nodes[].daemons_say", "status lines of the daemons"},
			{"nodes[].journal", "last lines of the journal, if a daemon was not ready in time"},
		}},
		{"Output of identities apply, remove and revoke", []field{
			{"objects.created", "number of objects that were created, or would be created"},
			{"objects.changed", "number of objects that were changed"},
			{"objects.deleted", "number of objects that were deleted"},
			{"objects.unchanged", "number of objects that are as they should be"},
			{"shared[]", "what was changed, or would be changed, for several nodes: policies, roles, bindings"},
			{"counts", "number of nodes for each value of `result`"},
			{"nodes[]", "the results of the nodes, as in the output of `install`"},
		}},
		{"Output of identities status", []field{
			{"well", "whether everything is complete, the policies are enforced, and nothing is stale; the exit code is 0 or 1"},
			{"enforced", "whether the API server enforces the policies; null if this is not known"},
			{"error", "why it is not known"},
			{"shared", "the policies, the roles, and the bindings that are for several nodes: the same fields as `nodes[]`, without `node`"},
			{"counts", "number of nodes for each value of `state`"},
			{"nodes[].node", "name of the node"},
			{"nodes[].state", "`complete`; `missing`: the node has no account; `incomplete`: objects are missing; `different`: objects are not as they should be; `foreign`: another program has created an object"},
			{"nodes[].missing[]", "objects that do not exist"},
			{"nodes[].different[]", "objects that are not as they should be"},
			{"nodes[].foreign[]", "objects that another program has created"},
			{"stale[].kind", "objects of nodes and rabbits that are not in the SystemConfiguration; empty if NODE was given"},
			{"stale[].namespace", "namespace of the object; missing if it is in none"},
			{"stale[].name", "name of the object"},
			{"others[].namespace", "namespace of an account with the name of a daemon that nnf-deploy has not created and that belongs to no compute node: the policies apply to it as well; empty if NODE was given"},
			{"others[].name", "name of the account"},
		}},
		{"Output of status", []field{
			{"nodes[].node", "name of the node"},
			{"nodes[].well", "whether the node answers and `well` of all its daemons is true"},
			{"nodes[].answers", "whether the node answers"},
			{"nodes[].seconds", "how long the node took"},
			{"nodes[].cause", "why the node does not answer"},
			{"nodes[].hint", "what to do about it"},
			{"nodes[].notes", "notes, for people"},
			{"nodes[].daemons[].name", "name of the daemon"},
			{"nodes[].daemons[].well", "whether the daemon runs, clientmountd reaches the API server, and the token is not missing or expired"},
			{"nodes[].daemons[].version", "version of the program"},
			{"nodes[].daemons[].package", "name and version of its package"},
			{"nodes[].daemons[].unit", "state of the service, or of the socket for nnf-dm"},
			{"nodes[].daemons[].enabled", "whether the unit is enabled, as `systemctl is-enabled` prints it"},
			{"nodes[].daemons[].says", "status line of the daemon"},
			{"nodes[].daemons[].api", "whether clientmountd reaches the API server: `answers`, `no answer` or `connecting`"},
			{"nodes[].daemons[].mounts", "number of ClientMounts that have mounts in place"},
			{"nodes[].daemons[].mounts_unreadable", "number of records that cannot be read"},
			{"nodes[].daemons[].mounts_unknown", "instead of `mounts`: why the number is not known"},
			{"nodes[].daemons[].identity", "whose account the token belongs to: `shared` by all nodes, `per-node`, or `other`; missing if it is not a service account"},
			{"nodes[].daemons[].account", "user name of the account, as the token claims it"},
			{"nodes[].daemons[].token", "state of the token; `ends` if it expires"},
			{"nodes[].daemons[].token_expires", "when the token expires (RFC 3339), if `token` is `ends`"},
			{"nodes[].daemons[].timer", "state of `nnf-dm.timer`, which starts nnf-dm for the renewal of its token: `active`, `inactive`, `masked` or `missing`. clientmountd has no timer and no such field"},
		}},
		{"Output of health", []field{
			{"version", "version of this format: 1. It changes if a field is removed or changes its meaning, not if fields are added"},
			{"reasons[].action", "`drain`, or `wait` if clientmountd recovers without help. The list has the most urgent problem of each node; a drain comes first"},
			{"reasons[].text", "the problem, without what differs between the nodes"},
			{"reasons[].nodes[]", "names of the nodes"},
			{"nodes[].node", "name of the node"},
			{"nodes[].cause", "why the node has no verdict, if it failed"},
			{"nodes[].hint", "what to do about it"},
			{"nodes[].verdict", "`ok`, `problem` or `unknown` (the node failed)"},
			{"nodes[].action", "what the node needs: `drain`, `wait` or `none`"},
			{"nodes[].line", "the line that `clientmountd health` prints on the node"},
			{"nodes[].problems[]", "all problems, as in the output of `health` of clientmountd"},
		}},
		{"Output of doctor", []field{
			{"version", "version of this format: 1. It changes if a field is removed or changes its meaning, not if fields are added"},
			{"nodes[].node", "name of the node"},
			{"nodes[].cause", "why the node has no result, if it failed"},
			{"nodes[].hint", "what to do about it"},
			{"nodes[].bundle", "file with the support bundle of the node"},
			{"nodes[].checks[]", "all checks, as in the output of `doctor` of clientmountd"},
		}},
		{"Output of timeline", []field{
			{"version", "version of this format: 1. It changes if a field is removed or changes its meaning, not if fields are added"},
			{"workflow", "name of the workflow"},
			{"steps[].phase", "`mount` or `unmount`. The list has the steps of all nodes, in the order in which nodes run them"},
			{"steps[].kind", "`api`, `hook`, `activate`, `wait`, `mount` or `retry`; missing for the whole phase"},
			{"steps[].name", "name of the step; missing for the whole phase"},
			{"steps[].nodes", "number of nodes that have the step"},
			{"steps[].p50_seconds", "median of the time of these nodes; if a node has the step for several mounts, the sum counts"},
			{"steps[].p95_seconds", "95% of these nodes needed at most this time"},
			{"steps[].max_seconds", "the longest time"},
			{"steps[].failed[]", "nodes on which the last try failed"},
			{"steps[].slowest[]", "nodes at or above `p95_seconds` that are slower than `p50_seconds`"},
			{"nodes[].node", "name of the node"},
			{"nodes[].cause", "why the node has no timeline, if it failed"},
			{"nodes[].hint", "what to do about it"},
			{"nodes[].lives[]", "the ClientMounts of the workflow with their steps, as in the output of `timeline` of clientmountd"},
		}},
		{"First line of the file of --results", []field{
			{"kind", "`nnf-deploy results`"},
			{"version", "version of this format: 1"},
			{"command", "the command, such as `install`"},
			{"started", "when the run started (RFC 3339)"},
			{"nodes", "names of all nodes of the run"},
		}},
		{"Further lines of the file of --results, one for each finished node", []field{
			{"node", "name of the node"},
			{"result", "as in the output of the command"},
			{"failed", "whether `--failed` repeats the node"},
			{"seconds", "how long the node took"},
			{"cause", "why the node failed"},
			{"hint", "what to do about it"},
		}},
		{"Output of version", []field{
			{"version", "version of nnf-deploy"},
		}},
	},
}

// doctorFields are the fields of the output of doctor, which is the same for all programs.
var doctorFields = []field{
	{"version", "version of this format: 1. It changes if a field is removed or changes its meaning, not if fields are added"},
	{"program", "the program that ran the checks: `clientmountd` or `nnf-dmctl`"},
	{"checks[].name", "the check; names are stable, and several results can have the same name"},
	{"checks[].state", "`ok`; `warn`: works, but not as it should; `fail`: does not work; `skip`: not checked, because an earlier check failed"},
	{"checks[].text", "what was found, for people"},
	{"checks[].hint", "what to do about it, for people"},
}
