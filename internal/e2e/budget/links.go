package budget

import "maps"

// program is a binary that make builds, and what was promised of it.
type program struct {
	name    string
	maxSize int64 // bytes
	modules map[string]string
}

var programs = []program{
	{"clientmountd", 12_000_000, modules},
	{"nnf-dm", 16_000_000, with(modules, served)},
	{"nnf-dmctl", 12_000_000, with(client, served)},
}

func with(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// modules is what clientmountd may be linked from, each with the reason. A
// module that is not here fails the test; so does one that nothing needs any
// more.
var modules = map[string]string{
	"github.com/BurntSushi/toml":       "the configuration file, with the positions of keys for error messages",
	"github.com/coreos/go-systemd/v22": "sd_notify",
	"github.com/lmittmann/tint":        "log lines on a terminal",
	"github.com/moby/sys/mountinfo":    "the escapes and optional fields of /proc/self/mountinfo",
	"github.com/spf13/pflag":           "flags as people know them; client-go needs it as well",
	"golang.org/x/sys":                 "system calls",
	"golang.org/x/term":                "is it a terminal",
	"k8s.io/apimachinery":              "metadata of objects, the encoding of watch events, errors of the API server",
	"k8s.io/client-go":                 "rest and clientcmd: requests to the API server, credentials that are renewed",

	"golang.org/x/net":        "client-go: HTTP/2",
	"golang.org/x/oauth2":     "client-go: tokens that are read again from their file",
	"golang.org/x/text":       "x/net: names of hosts",
	"golang.org/x/time":       "client-go: the limit of requests per second",
	"k8s.io/klog/v2":          "client-go: its log, which goes to ours",
	"k8s.io/utils":            "client-go: clocks, pointers",
	"sigs.k8s.io/yaml":        "client-go: kubeconfig files",
	"go.yaml.in/yaml/v2":      "sigs.k8s.io/yaml, structured-merge-diff",
	"github.com/go-logr/logr": "klog: its interface",

	"github.com/davecgh/go-spew":           "k8s.io/utils: dump, by client-go's credential plug-ins",
	"github.com/fxamacker/cbor/v2":         "apimachinery: registered as an encoding, not used",
	"github.com/x448/float16":              "cbor",
	"github.com/json-iterator/go":          "structured-merge-diff",
	"github.com/modern-go/concurrent":      "json-iterator",
	"github.com/modern-go/reflect2":        "json-iterator",
	"github.com/munnerz/goautoneg":         "client-go: content types of errors",
	"gopkg.in/inf.v0":                      "apimachinery: quantities",
	"k8s.io/kube-openapi":                  "apimachinery: names of types",
	"sigs.k8s.io/json":                     "apimachinery: JSON with exact cases",
	"sigs.k8s.io/randfill":                 "apimachinery: interfaces of its generated code",
	"sigs.k8s.io/structured-merge-diff/v6": "apimachinery: unstructured values",
}

// served is what both ends of the Copy Offload API need besides.
var served = map[string]string{
	"google.golang.org/grpc":                    "the protocol of the Copy Offload API, given by its clients",
	"google.golang.org/protobuf":                "its messages",
	"google.golang.org/genproto/googleapis/rpc": "errors with a reason; grpc needs it as well",
}

// client is what nnf-dmctl needs besides. It knows no Kubernetes.
var client = map[string]string{
	"github.com/spf13/pflag":        "flags as people know them",
	"github.com/vbauerster/mpb/v8":  "the progress bar: redrawn in place, cut to the terminal's width, lines of ours above it",
	"github.com/mattn/go-runewidth": "how many columns a text takes, for the message below the bar; mpb needs it as well",
	"golang.org/x/sys":              "the size of the terminal",
	"golang.org/x/term":             "is it a terminal",

	"github.com/VividCortex/ewma":   "mpb: speeds, not used",
	"github.com/acarl005/stripansi": "mpb: what a text looks like without its colours",
	"github.com/rivo/uniseg":        "go-runewidth: characters of several code points",
	"golang.org/x/net":              "grpc: HTTP/2",
	"golang.org/x/text":             "x/net: names of hosts",
}

// forbidden packages would cost much for little, or open what must stay shut.
// A name stands for everything below it, too.
var forbidden = map[string]string{
	"google.golang.org/grpc":                "clientmountd speaks to nobody but the API server",
	"google.golang.org/protobuf":            "2 MB; nothing here is in protocol buffers",
	"github.com/gogo/protobuf":              "the same",
	"sigs.k8s.io/controller-runtime":        "30 MB more for one watch",
	"k8s.io/api":                            "the types of all of Kubernetes; ours are four",
	"k8s.io/client-go/kubernetes":           "the clients of all of Kubernetes",
	"k8s.io/client-go/informers":            "caches of whole namespaces",
	"k8s.io/client-go/dynamic":              "maps instead of types",
	"k8s.io/client-go/discovery":            "reads and keeps the descriptions of all groups",
	"k8s.io/client-go/tools/leaderelection": "a node needs no election",
	"k8s.io/client-go/tools/record":         "events in the API server are writes",
	"github.com/prometheus/client_golang":   "needs a port",
	"net/http/pprof":                        "needs a port, and gives memory away",
	"expvar":                                "needs a port",
	"runtime/pprof":                         "turns memory profiling on in the runtime",
	"text/template":                         "calls methods by name, so the linker keeps all of them",
	"html/template":                         "the same",
	"plugin":                                "the same",
	"net/http/cgi":                          "a web server",
	"net/http/httptest":                     "a web server, of tests",
	"testing":                               "belongs to tests",
}

// rooms are the floors of the house: what may use what within the module.
var rooms = map[string]string{
	"api": "", "api/dws": "api", "api/nnf": "api api/dws", "api/lus": "", "api/datamovement": "", "api/datamovement/v2": "", "config": "", "daemon": "", "daemon/oneprocessor": "", "node": "", "version": "",
	"kube":        "api api/dws api/nnf",
	"volume":      "api api/dws api/nnf",
	"unixsocket":  "",
	"command":     "config daemon version", // the command line that the daemons share
	"clientmount": "api api/dws api/nnf kube volume node daemon",

	"datamovement":        "api api/datamovement api/datamovement/v2 api/dws api/lus api/nnf kube", // decides, and moves nothing
	"datamovement/server": "api api/datamovement api/datamovement/v2 api/dws api/lus api/nnf daemon datamovement kube unixsocket version",

	"transfer":          "api/datamovement api/datamovement/v2", // the users' side; what the daemon does is not its business
	"transfer/screen":   "transfer",
	"transfer/commands": "transfer transfer/screen version",

	"transfer/fakedaemon": "api/datamovement api/datamovement/v2", // for tests
}
