module ory-logout

go 1.26.0

require github.com/ory/client-go v1.22.92

require golang.org/x/oauth2 v0.38.0 // indirect
