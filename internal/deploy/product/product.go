// Package product is the table of what nnf-deploy knows about the two daemons: their
// programs, units, paths, owners, settings, service accounts and rights. Packages
// and the configuration of the daemons have the same facts in their own formats; the
// test of this package compares them.
//
// It must not know what is done with any of that.
package product

import (
	"regexp"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// Directories of a node.
const (
	BinDirectory     = "/usr/bin"
	ConfigDirectory  = "/etc"
	UnitDirectory    = systemd.UnitDirectory    // of the administrator and of "PROGRAM install"
	PackageDirectory = systemd.PackageDirectory // of the packages
	StateDirectory   = "/var/lib/nnf-deploy"    // what nnf-deploy itself keeps on a node
)

// Names of the files with a daemon's credentials, in its directory below /etc.
const (
	TokenFile = "service.token"
	CertFile  = "service.cert"
)

// Keys of the settings that nnf-deploy writes.
const (
	KeyHost  = "kubernetes.service_host"
	KeyPort  = "kubernetes.service_port"
	KeyToken = "kubernetes.token_file"
	KeyCert  = "kubernetes.cert_file"
	KeyNode  = "node.name"
)

// Account is a service account.
type Account struct {
	Name      string `yaml:"name"`
	Namespace string `yaml:"namespace"`
}

// String returns namespace/name.
func (a Account) String() string { return a.Namespace + "/" + a.Name }

// User is the name by which the API server knows the account.
func (a Account) User() string { return "system:serviceaccount:" + a.Namespace + ":" + a.Name }

// Rule is what a daemon's role grants on a resource of a group, with a subresource
// behind a slash. The daemon does not work without the verbs in Used; those in Other
// are in the role for older daemons.
type Rule struct{ Group, Resource, Used, Other string }

// Daemon is a daemon as the packages and nnf-deploy install it.
type Daemon struct {
	Name   string   // of the program, its package, its unit, and its directory below /etc
	Beside []string // its clients, which come with it: "CLIENT version" asks the daemon

	SocketActivated bool // systemd starts it for the first connection: its socket is enabled, not its service
	Mounts          bool // its status reports mounts

	Owner         string // USER:GROUP of its credentials and directories
	DirectoryMode string // of its directories, octal
	SecretMode    string // of its credentials, octal

	Account       Account   // of a Near-Node Flash installation
	OlderAccounts []Account // of older installations, newest first
	Manifest      string    // file among the manifests with account, Secret and role
	Rules         []Rule    // of that role
}

// Daemons are the daemons that can be installed, in their usual order.
var Daemons = []Daemon{
	{
		Name:  "clientmountd",
		Owner: "root:root", DirectoryMode: "0700", SecretMode: "0600",
		Mounts:  true,
		Account: Account{"nnf-clientmount", "nnf-system"},
		OlderAccounts: []Account{
			{"dws-controller-manager", "dws-system"},
			{"dws-operator-controller-manager", "dws-operator-system"},
		},
		Manifest: "clientmountd-rbac.yaml",
		Rules: []Rule{
			{api.GroupDWS, "clientmounts", "get list patch watch", "update"},
			{api.GroupDWS, "clientmounts/finalizers", "", "update"},
			{api.GroupDWS, "clientmounts/status", "patch", "get update"},
			{api.GroupNNF, "nnfstorageprofiles", "get", "list watch"},
		},
	},
	{
		Name: "nnf-dm", Beside: []string{"nnf-dmctl"},
		Owner: "root:nnf-dm", DirectoryMode: "0750", SecretMode: "0640",
		SocketActivated: true,
		Account:         Account{"nnf-dm-daemon", "nnf-dm-system"},
		OlderAccounts:   []Account{{"nnf-dm-controller-manager", "nnf-dm-system"}},
		Manifest:        "nnf-dm-rbac.yaml",
		Rules: []Rule{
			{api.GroupLUS, "lustrefilesystems", "list", "get watch"},
			{api.GroupDWS, "workflows", "get", "list"},
			{api.GroupDWS, "clientmounts", "list", "get"},
			{api.GroupDWS, "clientmounts/status", "", "get list"},
			{api.GroupDWS, "systemconfigurations", "get", "list watch"},
			{api.GroupNNF, "nnfdatamovements", "create delete get list patch watch", "update"},
			{api.GroupNNF, "nnfdatamovementprofiles", "list", "get watch"},
			{api.GroupNNF, "nnfdatamovements/finalizers", "", "update"},
			{api.GroupNNF, "nnfdatamovements/status", "", "get patch update"},
		},
	},
}

// other is a program that nnf-deploy brings credentials for and does not install.
var other = Daemon{Owner: "root:root", DirectoryMode: "0700", SecretMode: "0600"}

// Of returns the daemon of a program; known is false if there is none. The empty
// name is known: only credentials are installed.
func Of(program string) (d Daemon, known bool) {
	for _, d := range Daemons {
		if d.Name == program {
			return d, true
		}
	}
	return other, program == ""
}

// ValidName reports whether a daemon may have this name: it is one segment of a path,
// and goes into messages and names of files.
func ValidName(name string) bool { return validName.MatchString(name) }

var validName = regexp.MustCompile(`^[A-Za-z0-9_][-A-Za-z0-9_.]{0,63}$`)

// Names are the programs of all daemons.
func Names() (list []string) {
	for _, d := range Daemons {
		list = append(list, d.Name)
	}
	return list
}

// Credentials are the paths of the files with the credentials of a daemon of this
// name, which need not be one of Daemons.
func Credentials(name string) (token, cert string) {
	return Directory(name) + "/" + TokenFile, Directory(name) + "/" + CertFile
}

// Directory is the directory below /etc of a daemon of this name.
func Directory(name string) string { return ConfigDirectory + "/" + name }

// Programs are the daemon's programs, itself first.
func (d Daemon) Programs() []string { return append([]string{d.Name}, d.Beside...) }

// Path is where the program is installed.
func Path(program string) string { return BinDirectory + "/" + program }

// Service is the unit that runs it.
func (d Daemon) Service() string { return d.Name + ".service" }

// Socket is the unit that starts the service of a socket-activated daemon.
func (d Daemon) Socket() string { return d.Name + ".socket" }

// Units are the units that the daemon has, the service first.
func (d Daemon) Units() []string {
	if d.SocketActivated {
		return []string{d.Service(), d.Socket()}
	}
	return []string{d.Service()}
}

// Enabled is the unit that is enabled and started at boot.
func (d Daemon) Enabled() string {
	if d.SocketActivated {
		return d.Socket()
	}
	return d.Service()
}

// OwnUnits are the paths of the units that "PROGRAM install" writes, which hide the
// package's.
func (d Daemon) OwnUnits() (service, socket string) {
	return UnitDirectory + "/" + d.Service(), UnitDirectory + "/" + d.Socket()
}

// ConfigDirectories are the directories for credentials and settings.
func (d Daemon) ConfigDirectories() []string {
	return []string{Directory(d.Name), Directory(d.Name) + "/config.d"}
}

// Settings is the configuration file that nnf-deploy writes.
func (d Daemon) Settings() string { return Directory(d.Name) + "/config.d/50-nnf-deploy.toml" }

// DropIns is the directory of the service's drop-ins.
func (d Daemon) DropIns() string { return UnitDirectory + "/" + d.Service() + ".d" }

// DropIn is the drop-in that nnf-deploy writes for arguments and environment.
func (d Daemon) DropIn() string { return d.DropIns() + "/50-nnf-deploy.conf" }

// OlderDropIn is the drop-in of earlier installers.
func (d Daemon) OlderDropIn() string { return d.DropIns() + "/override.conf" }
