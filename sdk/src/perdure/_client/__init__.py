"""How clients talk to the engines: publishing, the inbox, matching answers to requests. Nothing here is public."""
