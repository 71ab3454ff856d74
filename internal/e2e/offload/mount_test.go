package offload

import (
	"github.com/compute-daemons/compute-daemons/internal/api"
	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

var mountBehaviours = []behaviour{
	{"paths on the rabbit", "4.2.2/same 4.2.2/example1 4.2.2/example2 4.2.2/example3 4.2.2/example4 4.2.2/example5 4.2.2/example6 9.6", both, pathsOnRabbit},
	{"the longest mount, compared by components", "4.2.1/best 9.5", both, longestMount},
	{"a mount without a reference", "4.2.1/reference 9.4", both, noReference},
	{"no mount of the same storage", "4.2.2/nomatch", both, otherStorage},
	{"variables in mount paths", "9.8", both, mountVariables},
	{"no copies from unmounted storage", "4.2.1/state 9.19", both, notMounted},
	{"lustre is found on another rabbit", "9.18", alone, otherRabbit},
	{"lustre needs the directive's label", "4.2.3/label", alone, noDirective},
}

// becomes checks the path of a source on the rabbit.
func (s *env) becomes(source, want string) {
	s.t.Helper()
	uid := s.create(from(source))
	s.same("source "+source, s.Movement(uid).String("spec", "source", "path"), want)
}

func pathsOnRabbit(s *env) {
	s.usual()
	// The directory itself, its contents, and paths below it. The paths need not exist here
	// and can be symbolic links: the rabbit copies as the user.
	for _, rest := range []string{"/a/b", "/a/", "", "/", "/with-späce_ä/1,2=3%4+5:6@7", "/.hidden/..also", "/a.b..c"} {
		s.becomes(s.path+rest, s.onRabbit+rest)
	}
	// Redundant slashes and dots are removed.
	for source, want := range map[string]string{s.path + "/a//b": "/a/b", s.path + "/./a": "/a", "//" + s.path[1:]: "", s.path + "//a//": "/a/", s.path + "/a/.": "/a/"} {
		s.becomes(source, s.onRabbit+want)
	}
	// No other path leaves the mount point.
	s.refused(createFailed, "Error finding compute mount info: source path 'PATH1/x' not found in list of client mounts", from(s.path+"1/x"))
	for path, why := range map[string]string{
		s.path + "/../../etc/x": "it must not contain .. as a component",
		s.path + "/a/..":        "it must not contain .. as a component",
		"/..":                   "it must not contain .. as a component",
		"relative":              "it must be an absolute path",
	} {
		s.refused(createInvalid, `source "`+path+`" is refused: `+why, from(path))
	}
	s.refused(createInvalid, "source is missing", from(""))
}

func longestMount(s *env) {
	s.system()
	s.workflow(nil)
	inner, other := s.entry(s.path+"/in/ner"), s.entry(s.path+"0")
	for i, e := range []fields{inner, other} {
		e["device"].(fields)["deviceReference"].(fields)["data"] = 5 + i
	}
	s.Mounted(s.clientMount("computes", s.Node, s.entry(s.path), other, inner))
	onInner, onOther := s.entry(s.onRabbit+"/inner"), s.entry(s.onRabbit+"/other")
	onInner["device"], onOther["device"] = inner["device"], other["device"]
	s.Mounted(s.clientMount("servers", s.Rabbit, onOther, s.entry(s.onRabbit), onInner))
	s.start()
	s.becomes(s.path+"/in/nerd", s.onRabbit+"/in/nerd")
	s.becomes(s.path+"/in", s.onRabbit+"/in")
	s.becomes(s.path+"/in/ner", s.onRabbit+"/inner")
	s.becomes(s.path+"/in/ner/x/", s.onRabbit+"/inner/x/")
	s.becomes(s.path+"0/x", s.onRabbit+"/other/x")
}

func noReference(s *env) {
	s.system()
	s.workflow(nil)
	e := s.entry(s.path)
	delete(e["device"].(fields), "deviceReference")
	s.Mounted(s.clientMount("computes", s.Node, e))
	s.start()
	s.refused(createFailed, "Error finding compute mount info: ClientMount NODE/JOB-computes: Source path 'PATH/a' does not have device reference", from(s.path+"/a"))
}

func otherStorage(s *env) {
	s.system()
	s.workflow(nil)
	s.Mounted(s.clientMount("computes", s.Node, s.entry(s.path)))
	e := s.entry(s.onRabbit)
	e["device"].(fields)["deviceReference"].(fields)["data"] = 4 // a different allocation of the same storage
	s.Mounted(s.clientMount("servers", s.Rabbit, e))
	s.start()
	s.refused(createFailed, s.k.step+"initiator 'NODE' not found in list of client mounts residing on 'RABBIT'")
}

func mountVariables(s *env) {
	s.system()
	s.workflow(nil)
	e := s.entry("/mnt/$JOBID/$WORKFLOW_UID/$USERID.$GROUPID-$DIRECTIVE_INDEX")
	e["userID"], e["groupID"], e["setPermissions"] = 1001, 2002, true
	cm := s.clientMount("computes", s.Node, e)
	cm["metadata"].(fields)["labels"].(fields)[api.LabelTargetDirectiveIndex] = "7"
	s.Mounted(cm)
	s.Mounted(s.clientMount("servers", s.Rabbit, s.entry(s.onRabbit)))
	s.start()
	s.becomes("/mnt/f9Tk/"+s.uid+"/1001.2002-7/a", s.onRabbit+"/a")
}

func notMounted(s *env) {
	s.usual()
	compute, server := s.clientMount("computes", s.Node, s.entry(s.path)), s.clientMount("servers", s.Rabbit, s.entry(s.onRabbit))
	const here = "Error finding compute mount info: ClientMount NODE/JOB-computes: 'PATH' is not mounted, or is being unmounted"
	there := s.k.step + "ClientMount RABBIT/JOB-servers: 'SERVER' is not mounted on the rabbit, or is being unmounted"
	s.Report(compute, "mounted", false)
	s.refused(createFailed, here)
	s.Report(compute, "unmounted", true)
	s.refused(createFailed, here)
	s.Report(compute, "mounted", true)
	s.Report(server, "mounted", false)
	s.refused(createFailed, there)
	s.Report(server, "mounted", true)
	s.create()
	// The cached data is used for a second. A copy that is created in that time is cancelled.
	server["spec"].(fields)["desiredState"] = "unmounted"
	s.Apply(server)
	s.soonRefused(there)
	compute["spec"].(fields)["desiredState"] = "unmounted"
	s.Apply(compute)
	s.refused(createFailed, here)
}

// soonRefused creates movements until one is refused, and checks that those created after
// the call are cancelled.
func (s *env) soonRefused(why string) {
	s.t.Helper()
	before := s.Movements(api.LabelOwnerName, s.job)
	var r *pb.DataMovementCreateResponse
	wait.Within(s.t, patience, "a refusal", func() bool {
		var err error
		r, err = s.me.Create(s.ctx(), s.usualRequest())
		s.Must(err)
		return r.Status != createOK
	})
	s.same("refusal", r.Message, s.fill(why))
	wait.Within(s.t, patience, "nothing stays of what was created meanwhile", func() bool { return s.Movements(api.LabelOwnerName, s.job) <= before })
}

// The servers of a Lustre file system can be on other rabbits only. The mount paths of other
// compute nodes must not be used instead.
func otherRabbit(s *env) {
	s.Namespace(s.Rabbit + "-b")
	s.configuration([]any{fixture.StorageNode(s.Rabbit, s.Node), fixture.StorageNode(s.Rabbit+"-b", "another-compute")})
	s.workflow(nil)
	s.Mounted(s.clientMount("computes", s.Node, s.entry(s.path)))
	s.Mounted(s.clientMount("servers", s.Rabbit+"-b", s.entry("/mnt/servers")))
	s.Namespace("a-" + s.Node)
	s.Mounted(s.clientMount("others", "a-"+s.Node, s.entry("/mnt/of-a-compute")))
	s.start()
	s.becomes(s.path+"/a", "/mnt/servers/a")
	// The node's own rabbit takes precedence if it has servers.
	s.Mounted(s.clientMount("servers", s.Rabbit, s.entry(s.onRabbit)))
	s.becomes(s.path+"/a", s.onRabbit+"/a")
}

func noDirective(s *env) {
	s.usual()
	_, err := s.Cluster.Patch(s.ctx(), "ClientMount", s.Node, s.job+"-computes", lab.Object{"metadata": fields{"labels": fields{api.LabelDirectiveIndex: nil}}})
	s.Must(err)
	s.refused(createFailed, s.k.step+"unable to find directive index label on compute ClientMount, NODE/JOB-computes", func(w *createRequest) { w.Profile = "nope" })
}
