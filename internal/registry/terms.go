package registry

import (
	"net/url"
)

// terms are what messages call the server and its settings.
type terms struct {
	server, short     string // what it is
	address, interval string // what an administrator can change
	scheme            string // where to say that it does not speak TLS
	tokenServices     string
	settings          string // the field that contains its other settings, with a dot
	bundle            string // the setting of the CA bundle; empty: caBundle
	commandLine       bool   // the settings are flags and files of the user
}

func ofSigningServer() terms {
	return terms{ //nolint:gosec // the names of fields, no credentials
		server: "signing server", short: "server", address: "the server's URL", interval: "refreshInterval",
		scheme: "the port and the scheme of the server's URL", tokenServices: "spec.notary.tokenServices",
	}
}

func ofRegistry() terms {
	const settings = "spec.registries[]."
	return terms{
		server: "registry", short: "registry", address: "the host of the image", interval: "resolveInterval",
		scheme: "the port, or allow plain http in " + settings + "plainHTTP", tokenServices: settings + "tokenServices",
		settings: settings,
	}
}

// ofRedirect are the terms of another host that a registry redirects to.
func ofRedirect() terms {
	t := ofRegistry()
	t.short, t.address, t.scheme = "host", "where the registry redirects to", "where the registry redirects to"
	return t
}

// ofResponder are the terms of a server that a certificate names, for OCSP or a CRL.
func ofResponder() terms {
	return terms{
		server: "OCSP responder or CRL server", short: "server", address: "the URL in the certificate",
		interval: "refreshInterval", scheme: "the URL in the certificate",
	}
}

// ofCommandLine are the terms of a signing server that a user of the command line talks to.
func ofCommandLine() terms {
	return terms{
		server: "signing server", short: "server", address: "--server", interval: "the time between runs",
		scheme: "the port and the scheme of --server", tokenServices: "--token-service", commandLine: true,
	}
}

// termsOf returns the terms of a host: the server, or its token service.
func (c *Client) termsOf(target *url.URL) terms {
	t := c.terms
	if hostPort(target) != hostPort(c.base) {
		t.short, t.address, t.scheme = "token service", "its URL", "its port"
	}
	return t
}

// setting returns the full name of a setting.
func (t terms) setting(name string) string {
	if name == "caBundle" && t.bundle != "" {
		return t.bundle
	}
	if t.commandLine {
		switch name {
		case "caBundle":
			return "the file of --server-ca, or into ~/.docker/tls/<host>/ca.crt"
		case "credentialsSecretRef":
			return "credentials with 'docker login'"
		case "clientCertificateSecretRef":
			return "client.cert and client.key in ~/.docker/tls/<host>"
		}
	}
	return t.settings + name
}
