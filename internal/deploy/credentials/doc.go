// Package credentials gets the token and the CA with which a daemon reaches the API
// server: out of the Secret of its service account, or made for a time. What it
// returns has been tried: the API server was asked with this token, by this CA,
// whose it is and what it may do.
//
// It must not know how credentials get to a node.
package credentials
