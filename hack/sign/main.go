// Command sign signs an image for one role with Docker Content Trust. The project signs its own
// images with it. Before signing it fetches and verifies the repository with the manager's code,
// and refuses a root that is not the pinned one. Afterwards it does so again, and prints the roles
// that have signed the image.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "sign:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	r := request{
		passphrase: os.Getenv("NOTARY_DELEGATION_PASSPHRASE"),
		auth:       os.Getenv("NOTARY_AUTH"),
	}
	if hosts := os.Getenv("NOTARY_TOKEN_SERVICES"); hosts != "" {
		r.tokenServices = strings.Split(hosts, ",")
	}
	f := pflag.NewFlagSet("sign", pflag.ContinueOnError)
	f.StringVar(&r.role, "role", "", "role to sign for, such as ci: the delegation targets/ci")
	f.StringVar(&r.image, "image", "",
		"image by digest, such as registry.example.com/countersign/countersign@sha256:...")
	f.StringVar(&r.tag, "tag", "", "tag of the image, such as v1.2.3")
	f.StringVar(&r.url, "server", os.Getenv("NOTARY_SERVER"), "URL of the Notary server (default $NOTARY_SERVER)")
	f.StringVar(&r.serverCA, "server-ca", os.Getenv("NOTARY_CA"),
		"file with the CAs of the server's certificate (default $NOTARY_CA, or the system's CAs)")
	f.StringVar(&r.rootKeyID, "root-key-id", os.Getenv("NOTARY_ROOT_KEY_ID"),
		"canonical ID of the repository's root key, as \"docker trust inspect\" prints it "+
			"(default $NOTARY_ROOT_KEY_ID)")
	f.StringVar(&r.key, "key", os.Getenv("NOTARY_KEY"),
		"file of the role's private key (default $NOTARY_KEY); NOTARY_DELEGATION_PASSPHRASE decrypts it")
	if err := f.Parse(args); err != nil {
		return err
	}
	roles, err := sign(ctx, r)
	if err != nil {
		return err
	}
	fmt.Printf("%s of %s is signed by: %s\n", r.tag, r.image, roles)
	return nil
}
